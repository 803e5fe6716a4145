"""Airflow provider for Tavus."""

__version__ = "0.1.0"
