"""Many streams on many machines: edges capture and extract, servers recognise, the broker spreads the work.

An edge opens a stream by publishing a full window to `dhmd/STREAM/window`, which the servers share: the broker hands it
to one of them. Its estimate names the server, and from then on the edge sends that server alone, on
`dhmd/STREAM/window/SERVER`, only the rows that are new. Each message names the one it follows: a server that misses it
does not guess, but asks for a full window on `dhmd/STREAM/window/resync`. When a server goes (its last will on
`dhmd/serve/SERVER`) or does not answer, the edge opens again, and another has the whole window with that one message;
it also opens again when a server comes, and once in a while, so that the broker spreads the streams anew.

Why so: every message with all its rows would take 60 kB instead of 20; and if the broker dealt out each message, every
server would need the rows of all streams, so that more servers would soon not mean more streams. Here each stream's
rows travel once, to one server, whose state may be lost at any time.

The words travel with their token vectors in half precision, some 12 kB each time that they change, with the other rows
about 20 kB a second of a person who talks. The words alone would take 0.6 kB, but to encode them costs a server's core
10 ms a window, three times what the model takes; an edge has that time, and the encoder.
"""
