"""Everything that fedaccord uses of Flower beyond its public interface.

Public are `flwr.app`, `flwr.clientapp`, `flwr.serverapp` and `flwr.simulation`, which any module
may import.  All other names of Flower can change with any release, so they are imported and
replaced in this folder alone, one module for each process of Flower.  `tests/common/test_flower.py`
states what is expected of each of them: a new version of Flower is tried by running that file.

The modules here import what their process needs and nothing more: a deployed process never imports
`common.flower.simulation`, which needs Ray.
"""
