from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from acceptance.cluster import Cluster

from cyclone.private_cluster import free_port


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster whose master takes any free port."""
    yield from _cared_for(Cluster(tmp_path))


@pytest.fixture
def steady_cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster whose port is known before its master is started, and stays free while there is none."""
    yield from _cared_for(Cluster(tmp_path, free_port()))


@pytest.fixture(scope="module")
def make_module_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Cluster]]:
    """For runs that many tests look at."""
    clusters: list[Cluster] = []

    def make() -> Cluster:
        clusters.append(Cluster(tmp_path_factory.mktemp("cluster")))
        return clusters[-1]

    yield make
    for cluster in clusters:
        _end(cluster)


def _cared_for(cluster: Cluster) -> Iterator[Cluster]:
    yield cluster
    _end(cluster)


def _end(cluster: Cluster) -> None:
    try:
        cluster.stop()
        cluster.assert_nothing_is_left()
    finally:
        cluster.kill_all()
