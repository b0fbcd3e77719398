"""``inferd plan``: how many pods a load and a latency need, simulated from measured run times."""
