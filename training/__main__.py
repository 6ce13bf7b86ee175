"""`python -m training` is `dhmd-train`, for launchers:

torchrun --nproc-per-node 2 -m -- training fit configs/base.yaml

Without the two dashes torchrun takes --run for an abbreviation of an option of its own.
"""

import sys

from training.cli import main

if __name__ == "__main__":
    sys.exit(main())
