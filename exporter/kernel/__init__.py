"""Interfaces of the Linux kernel: system calls, BPF maps, netlink messages, `/proc`, and the layouts shared with the BPF programs.

Imports `model`.
"""
