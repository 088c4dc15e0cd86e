"""An API server of Kubeflow Pipelines for tests: real HTTP, the v2beta1 routes, nothing behind them.

    with FakeKfp(multi_user=True, token="secret") as server:
        server.fault("POST", "/runs$", "lost", times=1)   # the run is made, the answer never comes
        ... KFP_ENDPOINT = server.endpoint ...
        assert len(server.runs) == 1

What it is sent it checks with KFP's own models and formats, and refuses as the real one does.
"""

from tests.fake_kfp.server import FakeKfp

__all__ = ["FakeKfp"]
