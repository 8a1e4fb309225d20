"""The whole suite under the runner: it comes up, can be taken apart, and ends in good order."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from cinnabar_local import probes
from cinnabar_local.stack import Stack, StackConfig, running
from tests.support.waiting import until

SERVICES = ("storage-0", "scheduler-0", "gateway-0", "gateway-1", "grader-0", "grader-1")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A data folder that Postgres' user can reach."""
    path = Path(tempfile.mkdtemp(prefix="cinnabar-stack-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest_asyncio.fixture(scope="module")
async def stack(folder: Path) -> AsyncGenerator[Stack]:
    """One suite for the module, without supervision."""
    async with running(StackConfig(data_dir=folder)) as whole:
        yield whole


async def healthy(stack: Stack) -> bool:
    """What ``GET /health`` through Envoy says."""
    try:
        await probes.http_answers(f"{stack.addresses.http}/health")
    except probes.NotReady:
        return False
    return True


async def test_it_is_healthy_through_envoy(stack: Stack) -> None:
    async def is_healthy() -> bool:
        return await healthy(stack)

    await until(is_healthy, description="GET /health answers 200")


async def probed(program: Path, address: str, service: str = "") -> int:
    """Exit code of grpc-health-probe: 0 serving, 2 no connection, 3 the call failed, 4 not serving."""
    process = await asyncio.create_subprocess_exec(
        *(program, f"-addr={address}", f"-service={service}", "-connect-timeout=5s", "-rpc-timeout=5s"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    return await process.wait()


@pytest.mark.timeout(600)  # the probe may have to be built
@pytest.mark.parametrize(
    ("service", "dependencies"),
    [
        ("gateways", ("storage", "scheduler")),
        ("schedulers", ("storage", "redis")),
        ("storages", ("database", "shard-0", "objects")),
        ("graders", ("scheduler", "model")),
    ],
)
async def test_the_probe_of_orchestrators_understands_each_service(
    stack: Stack, health_probe: Path, service: str, dependencies: tuple[str, ...]
) -> None:
    for address in getattr(stack.addresses, service):

        async def serves(name: str, address: str = address) -> bool:
            return await probed(health_probe, address, name) == 0

        for name in ("", *dependencies):
            await until(lambda name=name: serves(name), description=f"{address} serves {name!r}")
        assert await probed(health_probe, address, "no-such-dependency") == 3


@pytest.mark.timeout(600)
async def test_the_probe_says_which_dependency_is_away(stack: Stack, health_probe: Path) -> None:
    address = stack.addresses.schedulers[0]
    await stack.stop("valkey")

    async def is_away() -> bool:
        return await probed(health_probe, address, "redis") == 4

    try:
        await until(is_away, description="the scheduler says that redis is away")
        assert await probed(health_probe, address) == 0  # it still takes calls, and says what is missing
    finally:
        await stack.start("valkey")

    async def is_back() -> bool:
        return await probed(health_probe, address, "redis") == 0

    await until(is_back, description="redis is back")
    await stack.stop("scheduler-0")
    assert await probed(health_probe, address) == 2
    await stack.start("scheduler-0")


async def test_s3_answers_to_nobody_without_a_key(stack: Stack) -> None:
    async with aiohttp.ClientSession() as session, session.get(stack.addresses.s3_endpoint) as answer:
        assert answer.status == 403


@pytest.mark.parametrize("name", SERVICES)
async def test_each_service_ends_in_good_order_and_starts_again(stack: Stack, name: str) -> None:
    await stack.stop(name)
    assert not stack.process(name).running
    assert await stack.exit_code(name) == 0
    await stack.start(name)
    assert stack.process(name).running


async def test_the_rest_goes_on_while_one_gateway_is_dead(stack: Stack) -> None:
    await stack.kill("gateway-0")
    assert not stack.process("gateway-0").running

    async def is_healthy() -> bool:
        return await healthy(stack)

    await until(is_healthy, description="the other gateway answers")
    await stack.restart("gateway-0")
    assert stack.process("gateway-0").running


async def test_a_killed_scheduler_comes_back_on_its_port(stack: Stack) -> None:
    before = stack.process("scheduler-0").pid
    await stack.kill("scheduler-0")
    await stack.restart("scheduler-0")
    assert stack.process("scheduler-0").pid not in (None, before)

    async def is_healthy() -> bool:
        return await healthy(stack)

    await until(is_healthy, description="the gateways have found the scheduler again")


async def test_an_unknown_name_is_told_with_the_names_there_are(stack: Stack) -> None:
    with pytest.raises(KeyError, match="scheduler-0"):
        await stack.kill("shceduler-0")
