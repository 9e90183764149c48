"""The live page at `/` of the health port: what this worker is doing, for people on this machine."""
