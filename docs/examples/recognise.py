"""Recognise a file, or a camera, inside your own program: no broker, no other process."""

import json
import sys

from realtime import recognise

for estimate in recognise(sys.argv[1] if len(sys.argv) > 1 else "camera:0"):
    if estimate.emotions and estimate.top:
        told = {"t": round(estimate.t, 1), "emotion": estimate.top, "sure": estimate.emotions[estimate.top]}
        print(json.dumps(told), flush=True)
