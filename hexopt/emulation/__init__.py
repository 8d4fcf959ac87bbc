"""The emulator: servers that speak vLLM's API and take as long as the latency model says, on no GPU at all.

They run the simulator's own instance in real time, so that what is simulated and what is served can be compared.
Needs the extra ``hexopt[service]``.
"""
