"""Decoding of what strangers send, in processes with little to lose: decoders are C code that reads foreign bytes.

`pool` is the side that asks, `process` what it starts, `wire` what they say to each other, `limits` what a process
gives up before it reads the first foreign byte. Neither side imports a model: a process takes a tenth of a gigabyte.
"""
