"""The service: an OpenAI-compatible gateway, a solver API and a dashboard in front of real model servers.

Needs the extra ``hexopt[service]``.
"""
