"""Measures inferd on this machine: beside its peers, call by call, and for memory that grows. Not part of the wheel."""
