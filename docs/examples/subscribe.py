"""Print the emotion shown whenever it changes.

python subscribe.py mqtt://localhost hall
"""

import asyncio
import sys

from realtime import subscribe


async def main(broker: str, stream: str) -> None:
    told = None
    async for estimate in subscribe(broker, stream):
        if estimate.top != told:
            told = estimate.top
            sure = f" ({estimate.emotions[told]:.0%} sure)" if estimate.emotions and told else ""
            print(f"{told or 'nobody'}{sure}", flush=True)


asyncio.run(main(*sys.argv[1:]))
