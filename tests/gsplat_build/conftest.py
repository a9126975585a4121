"""Made-up machines."""

from machines import machine, program  # noqa: F401
