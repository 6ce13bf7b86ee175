"""Fixtures for all tests."""

from __future__ import annotations

import base64
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from dhmd.features.speech import SpeechModel
from dhmd.modality import EDGES, Modality
from dhmd.model import DHMD, SENTIMENT, DHMDConfig, ModalityConfig

# A busy machine is no fault of what is tested.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference numbers, corpora and clips beside the repository; not part of it."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the folder 'shared' beside the repository ({SHARED})")
    return SHARED


LETTER = {"l": Modality.TEXT, "v": Modality.VISION, "a": Modality.AUDIO}
FIELD = {Modality.TEXT: "text", Modality.VISION: "video", Modality.AUDIO: "audio"}
KERNEL = {Modality.TEXT: 5, Modality.AUDIO: 3, Modality.VISION: 1}
QUERY_MODEL = {"txt": Modality.TEXT, "img": Modality.VISION, "acoustic": Modality.AUDIO}
UNUSED = re.compile(
    r"proj[12]_[lva]_low\.|out_layer_[lva]_low\.|_high_sd\.|proj_cosine_|align_c_|logit_scale|version$|_float_tensor$"
)

TRANSFORMER_PARTS = {
    "self_attn.in_proj_weight": "attention.in_proj.weight",
    "self_attn.in_proj_bias": "attention.in_proj.bias",
    "self_attn.out_proj": "attention.out_proj",
    "layer_norms.0": "attention_norm",
    "layer_norms.1": "feed_forward_norm",
    "fc1": "expand",
    "fc2": "contract",
    "layer_norm.": "norm.",
}

RULES: list[tuple[str, str]] = [
    (r"proj_([lva])\.", r"projection.{0}.conv."),
    (r"encoder_s_([lva])\.", r"decoupler.{0}.encoder."),
    (r"decoder_([lva])\.", r"decoupler.{0}.decoder."),
    (r"encoder_c\.", "shared_encoder."),
    (r"self_attentions_c_([lva])\.", r"self_attention.{0}."),
    (r"trans_([lva])_mem\.", r"memory.{0}."),
    (r"trans_([lva])_with_([lva])\.", r"cross_attention.{1}->{0}."),
    (r"proj1_c\.", "shared_head.first."),
    (r"proj2_c\.", "shared_head.second."),
    (r"out_layer_c\.", "shared_head.out."),
    (r"proj1_([lva])_low_dict\.", r"homo_head.{0}.first."),
    (r"proj2_([lva])_low_dict\.", r"homo_head.{0}.second."),
    (r"out_layer_([lva])_low_dict\.", r"homo_head.{0}.out."),
    (r"proj1_([lva])_high\.", r"hetero_head.{0}.first."),
    (r"proj2_([lva])_high\.", r"hetero_head.{0}.second."),
    (r"out_layer_([lva])_high\.", r"hetero_head.{0}.out."),
    (r"proj_([lva])_fusion_c\.", r"fuse_homo.{0}."),
    (r"proj_([lva])_fusion_s\.", r"fuse_hetero.{0}."),
    (r"weight_([lva])\.", r"gate.{0}."),
    (r"weight_c\.", "shared_gate."),
    (r"proj1\.", "head.first."),
    (r"proj2\.", "head.second."),
    (r"out_layer\.", "head.out."),
    (r"(homo|hetero)_dict\.space_dict", r"{0}_dictionary.atoms"),
    (r"(homo|hetero)_dict\.(img|txt|acoustic)_query_model\.q_map\.", r"{0}_dictionary.query.{1}."),
    (r"(homo|hetero)_gd\.W_logit\.", r"{0}_graph.from_logit."),
    (r"(homo|hetero)_gd\.W_repr\.", r"{0}_graph.from_representation."),
    (r"(homo|hetero)_gd\.W_edge\.", r"{0}_graph.edge."),
]


def translate(name: str) -> str:
    """A weight's name in the reference -> its name in ours."""
    for pattern, ours in RULES:
        found = re.match(pattern, name)
        if found:
            groups = [{**LETTER, **QUERY_MODEL}.get(g, g) for g in found.groups()]
            rest = name[found.end() :]
            for theirs, mine in TRANSFORMER_PARTS.items():
                rest = rest.replace(theirs, mine)
            return ours.format(*groups) + rest
    raise KeyError(name)


def stacked(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of one transformer after the other -> those of a group, in the order of its members."""
    groups = {"self_attention": Modality, "memory": Modality, "cross_attention": EDGES}
    out = {name: value for name, value in weights.items() if name.split(".")[0] not in groups}
    for group, members in groups.items():
        first = f"{group}.{next(iter(members))}."
        for name in [name.removeprefix(first) for name in weights if name.startswith(first)]:
            parts = torch.stack([weights[f"{group}.{member}.{name}"] for member in members])
            out[f"{group}.{name}"] = parts.flatten() if parts.ndim == 2 else parts
    return out


class Golden:
    """One golden file, and our model with its weights."""

    def __init__(self, path: Path) -> None:
        self.arrays: dict[str, np.ndarray[Any, Any]] = dict(np.load(path))
        self.inputs = {m: torch.from_numpy(self.arrays[f"in.{FIELD[m]}"]) for m in Modality}
        config = DHMDConfig(
            modalities={m: ModalityConfig(self.inputs[m].shape[2], KERNEL[m]) for m in Modality},
            heads=(SENTIMENT,),
            d=10,
            attention_heads=2,
            layers=2,
            atoms=16,
        )
        self.model = DHMD(config).eval()
        state = self.model.state_dict()
        given = {
            translate(key[2:]): torch.from_numpy(value)
            for key, value in self.arrays.items()
            if key.startswith("w.") and not UNUSED.search(key[2:])
        }
        shaped = {
            name: value.squeeze(-1) if value.ndim == 3 and name in state and state[name].ndim == 2 else value
            for name, value in given.items()
        }
        missing, unexpected = self.model.load_state_dict(stacked(shaped), strict=False)
        assert not unexpected
        assert all("normaliser" in name or "margin_projection" in name for name in missing), missing
        with torch.inference_mode():
            self.out = self.model(self.inputs)

    def __getitem__(self, key: str) -> Tensor:
        return torch.from_numpy(self.arrays[key])

    @property
    def labels(self) -> Tensor:
        """(B,) sentiment."""
        return self["in.label"][:, 0]


@pytest.fixture(scope="session", params=["dhmd_aligned", "dhmd_unaligned"])
def golden(request: pytest.FixtureRequest, shared: Path) -> Golden:
    """Each golden file in turn; the reference's names are mapped here, not in the model."""
    return Golden(shared / "golden" / f"{request.param}.npz")


def require(program: str, package: str) -> None:
    """Skip, naming the Debian package, unless `program` is installed."""
    if shutil.which(program) is None:
        pytest.skip(f"needs {program}; sudo apt install {package}")


def save_untrained_encoders(folder: Path) -> None:
    """What the three extractors have learned, by chance; the text encoder's adapter is empty."""
    from dhmd.assets.store import fetch
    from dhmd.checkpoint import encoder_path
    from dhmd.features.expression import ExpressionNet
    from dhmd.features.speech import SPEECH_ASSET
    from dhmd.features.speech_encoder import SpeechEncoder
    from dhmd.features.voice_network import VoiceNetwork
    from dhmd.features.weights import save_half

    torch.manual_seed(0)
    ExpressionNet().save(encoder_path(folder, Modality.VISION))
    voice = VoiceNetwork(SpeechEncoder.load(fetch(SPEECH_ASSET) / "model.bin"))
    save_half(encoder_path(folder, Modality.AUDIO), voice.learned())
    save_half(encoder_path(folder, Modality.TEXT), {})


@pytest.fixture(scope="session")
def untrained_encoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of encoders with weights by chance."""
    folder = tmp_path_factory.mktemp("encoders")
    save_untrained_encoders(folder)
    return folder


@pytest.fixture(scope="session")
def untrained_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the real features with weights by chance: for what does not depend on what was learned."""
    from dhmd.checkpoint import Calibration, encoder_path, save
    from dhmd.features.expression import ExpressionNet
    from dhmd.features.face import face_spec
    from dhmd.features.text import TextExtractor
    from dhmd.features.voice import VoiceExtractor
    from dhmd.features.voice_network import VoiceNetwork

    folder = tmp_path_factory.mktemp("untrained")
    save_untrained_encoders(folder)
    specs = (
        face_spec(ExpressionNet.load(encoder_path(folder, Modality.VISION))),
        VoiceExtractor(VoiceNetwork.load(encoder_path(folder, Modality.AUDIO))).spec,
        TextExtractor(adapter=encoder_path(folder, Modality.TEXT)).spec,
    )
    features = {spec.modality: spec for spec in specs}
    config = DHMDConfig(
        modalities={m: ModalityConfig(features[m].width, kernel=1) for m in Modality},
        d=16,
        attention_heads=4,
        layers=1,
        atoms=16,
    )
    save(
        folder,
        name="untrained",
        model=DHMD(config),
        features=features,
        calibration=Calibration({"vision": 2.0}, {"vision": 0.5, "text+vision": 1.0}),
        training={},
        card="Weights by chance.\n",
    )
    return folder


@pytest.fixture(scope="session")
def make_media(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """make_media(name, *arguments): the file FFmpeg makes of them, made once a session and not to be changed."""
    require("ffmpeg", "ffmpeg")
    folder = tmp_path_factory.mktemp("media")

    def make(name: str, *arguments: str) -> Path:
        path = folder / name
        if not path.exists():
            command = ["ffmpeg", "-v", "error", *arguments, path]
            made = subprocess.run(command, capture_output=True, text=True, check=False)
            assert made.returncode == 0, made.stderr
        return path

    return make


class PulseAudio:
    """A sound server of its own whose only microphone hears what is played to it."""

    def __init__(self) -> None:
        # Not pytest's folder: the path of a socket may be no longer than 107 bytes.
        self._folder = tempfile.TemporaryDirectory(prefix="pulse-")
        folder = Path(self._folder.name)
        alsa = folder / "asound.conf"
        alsa.write_text("pcm.!default { type pulse }\nctl.!default { type pulse }\n")
        self.environment = {
            **os.environ,
            "HOME": str(folder),
            "XDG_RUNTIME_DIR": str(folder),
            "PULSE_RUNTIME_PATH": str(folder),
            "PULSE_SERVER": f"unix:{folder}/native",
            "ALSA_CONFIG_PATH": str(alsa),
        }
        self.start()

    def start(self) -> None:
        socket = f"{self._folder.name}/native"
        Path(socket).unlink(missing_ok=True)
        modules = ["module-null-sink sink_name=speaker", f"module-native-protocol-unix socket={socket}"]
        self._server = subprocess.Popen(
            ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", *(f"--load={m}" for m in modules)],
            env=self.environment,
            stderr=subprocess.DEVNULL,
        )
        while self._control("info").returncode != 0:
            assert self._server.poll() is None, "pulseaudio ended at once"
        assert self._control("set-default-source", "speaker.monitor").returncode == 0

    def _control(self, *command: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(["pactl", *command], env=self.environment, capture_output=True, check=False)

    def play(self, path: Path) -> subprocess.Popen[bytes]:
        """Play a WAV file to the microphone; not waited for."""
        return subprocess.Popen(["paplay", "--device=speaker", path], env=self.environment)

    def kill(self) -> None:
        self._server.kill()
        self._server.wait()

    def freeze(self) -> None:
        self._server.send_signal(signal.SIGSTOP)

    def close(self) -> None:
        self.kill()
        self._folder.cleanup()


@pytest.fixture
def pulseaudio() -> Iterator[PulseAudio]:
    """A microphone without hardware. PortAudio reads its surroundings once: record in a process started with
    `pulseaudio.environment`."""
    require("pulseaudio", "pulseaudio")
    require("paplay", "pulseaudio-utils")
    libraries = Path("/usr/lib")
    if not any(libraries.glob("*/alsa-lib/libasound_module_pcm_pulse.so")):
        pytest.skip("needs ALSA's plugin for PulseAudio; sudo apt install libasound2-plugins")
    if not any(libraries.glob("*/libportaudio.so.2")):
        pytest.skip("needs PortAudio; sudo apt install libportaudio2")
    server = PulseAudio()
    yield server
    server.close()


class MjpegServer:
    """A network camera: serves JPEG pictures in turn, over and over, as a multipart stream at `fps`.

    Under /locked it asks for user "me" and password "s3cret"; /words is no picture; /away leads to `elsewhere`. tls: of
    one that is encrypted.
    """

    def __init__(self, pictures: list[bytes], fps: float, tls: ssl.SSLContext | None = None) -> None:
        self.pictures = pictures
        self.fps = fps
        self.words = b"no pictures here\n"
        self.elsewhere = ""
        self._tls = tls
        self.stalled = False
        self._gone = threading.Event()
        self._server: ThreadingHTTPServer | None = None
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.appear()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/stream.mjpg"

    def appear(self) -> None:
        camera = self
        self._gone.clear()

        class Stream(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                secret = base64.b64encode(b"me:s3cret").decode()
                if self.path == "/locked" and self.headers.get("Authorization") != f"Basic {secret}":
                    self.send_response(401)
                    self.send_header("WWW-Authenticate", 'Basic realm="camera"')
                    self.end_headers()
                    return
                if self.path == "/away":
                    self.send_response(302)
                    self.send_header("Location", camera.elsewhere)
                    self.end_headers()
                    return
                self.send_response(200)
                if self.path.startswith("/words"):
                    self.end_headers()
                    self.wfile.write(camera.words)
                    return
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                number = 0
                while not camera._gone.wait(1 / camera.fps):
                    if camera.stalled:
                        continue
                    jpeg = camera.pictures[number % len(camera.pictures)]
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                    try:
                        self.wfile.write(head.encode() + jpeg + b"\r\n")
                    except OSError:
                        return
                    number += 1

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Stream)
        self._server.daemon_threads = True
        if self._tls is not None:
            # The handshake is each connection's own matter.
            self._server.socket = self._tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def vanish(self) -> None:
        """Cut every connection and refuse new ones."""
        self._gone.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


@pytest.fixture
def serve_mjpeg() -> Iterator[Callable[..., MjpegServer]]:
    """serve_mjpeg(images, fps=25, tls=None): a network camera that shows BGR images, closed at the end of the test."""
    servers: list[MjpegServer] = []

    def serve(images: list[np.ndarray[Any, Any]], fps: float = 25.0, tls: ssl.SSLContext | None = None) -> MjpegServer:
        import cv2

        servers.append(MjpegServer([cv2.imencode(".jpg", image)[1].tobytes() for image in images], fps, tls))
        return servers[-1]

    yield serve
    for server in servers:
        server.vanish()


@pytest.fixture(scope="session")
def speech() -> SpeechModel:
    """The speech model with its real weights."""
    return SpeechModel()


@pytest.fixture(scope="session")
def listen() -> Callable[[Path], NDArray[np.float32]]:
    """listen(path): the sound of a file, (N,) float32, 16 kHz mono."""

    def decode(path: Path) -> NDArray[np.float32]:
        import av

        resampler = av.AudioResampler("fltp", "mono", 16_000)
        with av.open(str(path)) as container:
            frames = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
        return np.concatenate([frame.to_ndarray()[0] for frame in [*frames, *resampler.resample(None)]])

    return decode


@pytest.fixture(scope="session")
def say(
    tmp_path_factory: pytest.TempPathFactory, listen: Callable[[Path], NDArray[np.float32]]
) -> Callable[[str], NDArray[np.float32]]:
    """say(text): a synthetic voice speaking it, without silence at the ends, (N,) float32, 16 kHz mono."""
    require("espeak-ng", "espeak-ng")
    folder = tmp_path_factory.mktemp("speech")

    def speak(text: str) -> NDArray[np.float32]:
        path = folder / f"{zlib.crc32(text.encode()):08x}.wav"
        if not path.exists():
            subprocess.run(["espeak-ng", "-v", "en-us", "-s", "150", "-w", path, text], check=True)
        sound = listen(path)
        audible = np.flatnonzero(np.abs(sound) > 0.003)
        return sound[audible[0] : audible[-1] + 1]

    return speak
