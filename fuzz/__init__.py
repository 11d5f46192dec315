"""Hostile input by the million: strangers' bytes become a valid message or a clear reason, within bounds."""
