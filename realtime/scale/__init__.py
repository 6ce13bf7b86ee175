"""Many streams on many machines: edges capture and extract, servers recognise, the broker spreads the work.

An edge opens a stream by publishing a full window to `dhmd/STREAM/window`, which the servers share: the broker hands it
to one of them. Its estimate names the server, and from then on the edge sends that server alone, on
`dhmd/STREAM/window/SERVER`, only the rows that are new. Each message names the one it follows: a server that misses it
does not guess, but asks for a full window on `dhmd/STREAM/window/resync`. When a server goes (its last will on
`dhmd/serve/SERVER`) or does not answer, the edge opens again, and another has the whole window with that one message;
it also opens again when a server comes, and once in a while, so that the broker spreads the streams anew.

Why so: every message with all its rows would take 45 kB instead of 10; and if the broker dealt out each message, every
server would need the rows of all streams, so that more servers would soon not mean more streams. Here each stream's
rows travel once, to one server, whose state may be lost at any time.

The words travel as words, 0.6 kB a window; the server encodes them. Their token vectors would take 30 kB each time a
sentence is revised, and the edge is spared the encoder.
"""
