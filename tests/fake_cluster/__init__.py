"""A Kubernetes API for tests: real HTTP, and containers that really run, as processes of this machine.

`FakeCluster` is one: a namespace with nodes, both training operators, a scheduler, Kueue, and a kubelet. It refuses
what a real API server refuses, and breaks on demand: cut streams, forgotten versions, errors, slow answers.
"""

from tests.fake_cluster.cluster import FakeCluster

__all__ = ["FakeCluster"]
