"""One file a command of `dhmd-live`, each composing the parts."""
