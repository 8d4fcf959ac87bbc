"""Where latency models come from: sampling a profile, freezing it, fitting it, calibrating the fit."""
