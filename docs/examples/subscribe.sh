#!/bin/sh
# Print the emotion shown whenever it changes; for streams with --state.
#
# sh subscribe.sh mqtt://localhost hall
mosquitto_sub -L "$1/dhmd/$2/state/emotion" | while read -r emotion; do echo "$emotion"; done
