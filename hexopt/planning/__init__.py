"""Capacity planning: how many instances of which configuration meet a service level at least money."""
