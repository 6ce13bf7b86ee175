"""Print what happens in a stream, received by the lab streaming layer: pip install pylsl."""

import sys

import pylsl

stream = sys.argv[1] if len(sys.argv) > 1 else "default"
inlet = pylsl.StreamInlet(pylsl.resolve_byprop("source_id", f"dhmd-{stream}-events")[0])
while True:
    (event,), at_s = inlet.pull_sample()
    print(f"{at_s + inlet.time_correction():.3f} {event}", flush=True)
