"""Print what happens in streams, received by Open Sound Control: pip install python-osc."""

import sys

from pythonosc.dispatcher import Dispatcher
from pythonosc.osc_server import BlockingOSCUDPServer

dispatcher = Dispatcher()
dispatcher.map("/dhmd/*/event", lambda address, event: print(address.split("/")[2], event, flush=True))
port = int(sys.argv[1]) if len(sys.argv) > 1 else 9000
BlockingOSCUDPServer(("127.0.0.1", port), dispatcher).serve_forever()
