"""Linux as it is: system calls, BPF maps, netlink messages, `/proc`, and the layouts shared with the BPF programs.

Imports `model`.
"""
