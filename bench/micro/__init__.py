"""Micro-benchmarks of ext/: what one call costs, and whether a change made it dearer.

`measure` runs in a process of its own with the standard library, protobuf and the build under test, and nothing
else; the other modules start it, on one build or on two, and judge what it prints.
"""
