"""Streaming n, mean, Q, M and V of many groups, on the host or on a device."""
