"""A page as a headless Chromium shows it."""

import os
import shutil
import subprocess

import pytest


def dump(page, profile):
    """The page's elements after its scripts have run, and what the browser complained of.

    Without a browser the test is skipped, or fails where one is required.
    """
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        missing = pytest.fail if "HEXOPT_REQUIRE_CHROMIUM" in os.environ else pytest.skip
        missing("no Chromium on PATH (Debian package chromium)")
    done = subprocess.run(
        [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={profile}",
            "--window-size=1280,1900", "--virtual-time-budget=5000", "--enable-logging=stderr", "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout, done.stderr
