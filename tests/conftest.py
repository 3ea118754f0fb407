"""What tests of several folders share: checked shapes, a tiny frozen model, a photograph.

Shapes and types are checked while the tests run: jaxtyping's annotations, by beartype. The hook must be in place before
anything of `unquant` is imported; processes that tests start run without it. Checked is all that computes. What checks
its arguments itself, and is tested with wrong ones, is left out, and so are the commands: typer passes None for an option
that was not given.
"""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from jaxtyping import install_import_hook
from PIL import Image

if TYPE_CHECKING:
    from unquant.codecs.av1 import Av1Codec
    from unquant.codecs.cdc import CdcCodec
    from unquant.codecs.interface import AnyCodec
    from unquant.codecs.latent import AnyLatentCodec
    from unquant.codecs.ratevar import RatevarCodec

CHECKED = ("nn", "diffusion", "entropy", "networks", "weights", "train", "perceptual", "codecs.windows")

HERE = Path(__file__).parent
SOURCE = HERE.parent / "src"
sys.path.insert(0, str(HERE / "support"))
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # so a shell starts what runs in its background, and so would all processes that are interrupted here be started
    signal.signal(signal.SIGINT, signal.default_int_handler)
install_import_hook([f"unquant.{name}" for name in CHECKED], "checker.checked")


@pytest.fixture(scope="session")
def tiny_weights() -> Path:
    """A weights file of 70 000 parameters, trained a little and then frozen: 16 latents, tiles of 8×8 positions."""
    return HERE / "golden" / "tiny.safetensors"


@pytest.fixture(scope="session")
def tiny(tiny_weights: Path) -> RatevarCodec:
    """The codec of `tiny_weights`; tests must leave it as it is."""
    from unquant.codecs.ratevar import RatevarCodec

    return RatevarCodec.from_file(tiny_weights)


@pytest.fixture(scope="session")
def tiny_sliced_weights() -> Path:
    """As `tiny_weights`, with three slices of the channels: 2, 4 and 10."""
    return HERE / "golden" / "tiny_sliced.safetensors"


@pytest.fixture(scope="session")
def tiny_sliced(tiny_sliced_weights: Path) -> RatevarCodec:
    """The codec of `tiny_sliced_weights`; tests must leave it as it is."""
    from unquant.codecs.ratevar import RatevarCodec

    return RatevarCodec.from_file(tiny_sliced_weights)


@pytest.fixture(scope="session")
def tiny_cdc_weights() -> Path:
    """The same of the family `cdc`: an Entroformer of several windows a tile, two steps of DDIM."""
    return HERE / "golden" / "tiny_cdc.safetensors"


@pytest.fixture(scope="session")
def tiny_cdc(tiny_cdc_weights: Path) -> CdcCodec:
    """The codec of `tiny_cdc_weights`; tests must leave it as it is."""
    from unquant.codecs.cdc import CdcCodec

    return CdcCodec.from_file(tiny_cdc_weights)


@pytest.fixture(scope="session")
def tiny_av1_weights() -> Path:
    """Random weights of the family `av1`, the last layer among them: it draws 10 levels away from AV1's picture."""
    return HERE / "golden" / "tiny_av1.safetensors"


@pytest.fixture(scope="session")
def tiny_av1(tiny_av1_weights: Path) -> Av1Codec:
    """The codec of `tiny_av1_weights`; tests must leave it as it is."""
    from unquant.codecs.av1 import Av1Codec

    return Av1Codec.from_file(tiny_av1_weights)


@pytest.fixture(scope="session", params=["tiny", "tiny_cdc"])
def either_weights(request: pytest.FixtureRequest) -> Path:
    """The tiny weights file of each family with a latent in turn."""
    return request.getfixturevalue(f"{request.param}_weights")


@pytest.fixture(scope="session")
def either(request: pytest.FixtureRequest, either_weights: Path) -> AnyLatentCodec:
    """The tiny codec of each family with a latent in turn: for what must hold of any."""
    return request.getfixturevalue(either_weights.stem)


@pytest.fixture(scope="session", params=["tiny", "tiny_cdc", "tiny_av1"])
def every_weights(request: pytest.FixtureRequest) -> Path:
    """The tiny weights file of every family in turn."""
    return request.getfixturevalue(f"{request.param}_weights")


@pytest.fixture(scope="session")
def every(request: pytest.FixtureRequest, every_weights: Path) -> AnyCodec:
    """The tiny codec of every family in turn: for what must hold whatever the family."""
    return request.getfixturevalue(every_weights.stem)


def installed(name: str) -> Path:
    """A weights file of the package; the test is skipped where it is not installed."""
    path = SOURCE / "unquant" / "weights" / f"{name}.safetensors"
    if not path.is_file():
        pytest.skip("the package's weights are not installed")
    return path


@pytest.fixture(scope="session")
def shipped_weights() -> Path:
    """The package's weights of `ratevar`."""
    return installed("ratevar")


@pytest.fixture(scope="session")
def shipped_cdc_weights() -> Path:
    """The package's weights of `cdc`."""
    return installed("cdc")


@pytest.fixture(scope="session")
def shipped_av1_weights() -> Path:
    """The package's weights of `av1`."""
    return installed("av1")


@pytest.fixture(scope="session")
def shipped(shipped_weights: Path) -> RatevarCodec:
    """The codec of the package's own weights; tests must leave it as it is."""
    from unquant.codecs.ratevar import RatevarCodec

    return RatevarCodec.from_file(shipped_weights)


@pytest.fixture(scope="session")
def shipped_cdc(shipped_cdc_weights: Path) -> CdcCodec:
    """The codec of the package's own weights of `cdc`; tests must leave it as it is."""
    from unquant.codecs.cdc import CdcCodec

    return CdcCodec.from_file(shipped_cdc_weights)


@pytest.fixture(scope="session")
def shipped_av1(shipped_av1_weights: Path) -> Av1Codec:
    """The codec of the package's own weights of `av1`; tests must leave it as it is."""
    from unquant.codecs.av1 import Av1Codec

    return Av1Codec.from_file(shipped_av1_weights)


@pytest.fixture(scope="session")
def photo() -> Image.Image:
    """The photograph of the demo, RGB, 600×400."""
    with Image.open(SOURCE / "unquant" / "demo" / "coffee.png") as image:
        return image.convert("RGB")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a bucket on an S3 server of this machine, with {} for what is in it; its keys are in the environment."""
    server = pytest.importorskip("moto.server")
    fs = pytest.importorskip("pyarrow.fs")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    threaded = server.ThreadedMotoServer("127.0.0.1", port, verbose=False)
    threaded.start()
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_EC2_METADATA_DISABLED": "true"}
    for name, value in keys.items():
        monkeypatch.setenv(name, value)
    place = f"127.0.0.1:{port}"
    client = fs.S3FileSystem(
        access_key="a", secret_key="b", endpoint_override=place, scheme="http", allow_bucket_creation=True
    )
    client.create_dir("photos")
    yield f"s3://photos/{{}}?endpoint_override={place}&scheme=http"
    threaded.stop()
