"""The version of what a holder and the coordinator say to each other."""

PROTOCOL_VERSION = 1
"""Raised with every change after which an old holder or coordinator would misread a message."""
