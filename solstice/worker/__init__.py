"""The processes of one attempt: the fork server they come from, the worker and its session.  Layer 5.

A worker may import neither `store` nor `broker`: it knows its order, its hypervisor and its pipe, and nothing else.
"""
