"""Hardware, software and energy: a machine keeps its id, and joules come only from a counter."""

from __future__ import annotations

import sys
import time
import types
from pathlib import Path
from types import SimpleNamespace

import psutil
import pynvml
import pytest
import torch

from touchstone.records.energy import Energy, EnergyMeter, total_energy
from touchstone.records.machine import (
    describe_hardware,
    describe_software,
    nominal_gib,
    read_cpu_model,
    short_name,
    usable_memory,
    usable_threads,
)

GIB = 2**30


def test_the_id_is_the_same_for_the_same_machine_only(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = describe_hardware("cpu"), describe_hardware("cpu")
    monkeypatch.setattr("touchstone.records.machine.read_cpu_model", lambda: "Another CPU 9000")
    other = describe_hardware("cpu")

    assert first == second
    assert first.id != other.id
    assert first.folder.startswith(f"{first.name}-{first.id[:6]}")


def test_the_id_does_not_depend_on_memory_reserved_by_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = set()
    for gib in (30.9, 31.1, 31.3, 32.0):
        monkeypatch.setattr("touchstone.records.machine.usable_memory", lambda size=gib: int(size * GIB))
        ids.add(describe_hardware("cpu").id)

    assert len(ids) == 1


@pytest.mark.parametrize(
    ("gib", "nominal"),
    [
        (0.4, 1),
        (1.9, 2),
        (7.6, 8),
        (15.5, 16),
        (23.5, 24),
        (24.0, 24),
        (31.1, 32),
        (79.1, 80),
        (125.6, 128),
        (139.8, 160),
        (503.4, 512),
    ],
)
def test_nominal_gib_rounds_up_to_the_nominal_size(gib: float, nominal: int) -> None:
    assert nominal_gib(int(gib * GIB)) == nominal


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("Intel(R) Xeon(R) Platinum 8480+", "xeon-platinum-8480"),
        ("Intel(R) Xeon(R) CPU @ 2.20GHz", "xeon"),
        ("Intel(R) Xeon(R) Processor (family 6, model 167)", "xeon"),
        ("11th Gen Intel(R) Core(TM) i7-1185G7 @ 3.00GHz", "i7-1185g7"),
        ("AMD EPYC 7763 64-Core Processor", "epyc-7763"),
        ("Apple M2 Pro", "m2-pro"),
        ("NVIDIA H100 80GB HBM3", "h100-80gb"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("Tesla T4", "t4"),
        ("", "unknown"),
        ("日本", "unknown"),
    ],
)
def test_short_name_can_be_part_of_a_folder_name(model: str, name: str) -> None:
    assert short_name(model) == name


def cpuinfo(root: Path, text: str) -> Path:
    (root / "proc").mkdir()
    (root / "proc/cpuinfo").write_text(text)
    return root


def test_read_cpu_model_keeps_a_specific_name(tmp_path: Path) -> None:
    root = cpuinfo(
        tmp_path, "processor : 0\nmodel name : AMD EPYC 7763 64-Core Processor\nflags : avx2\n\nprocessor : 1\n"
    )

    assert read_cpu_model(root) == "AMD EPYC 7763 64-Core Processor"


@pytest.mark.parametrize(
    "vague",
    [
        "Intel(R) Xeon(R) Processor",
        "Intel(R) Xeon(R) CPU @ 2.20GHz",
        "Intel Xeon Processor (Skylake, IBRS)",
        "QEMU Virtual CPU version 2.5+",
        "Common KVM processor",
        "AMD EPYC Processor",
        "AMD EPYC-Milan Processor",
    ],
)
def test_read_cpu_model_completes_a_vague_name(tmp_path: Path, vague: str) -> None:
    root = cpuinfo(tmp_path, f"model name : {vague}\ncpu family : 6\nmodel : 143\nflags : sse amx_bf16 avx2\n")

    assert read_cpu_model(root) == f"{vague} (family 6, model 143, avx2, amx_bf16)"


def test_read_cpu_model_names_an_arm_cpu_by_its_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    root = cpuinfo(tmp_path, "processor : 0\nFeatures : fp asimd sve\nCPU implementer : 0x41\nCPU part : 0xd40\n")

    assert read_cpu_model(root) == "aarch64 CPU (implementer 0x41, part 0xd40, asimd, sve)"


def test_read_cpu_model_without_cpuinfo_uses_platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.processor", lambda: "arm\x1b")

    assert read_cpu_model(tmp_path) == "arm"


@pytest.mark.parametrize(
    ("files", "threads"),
    [
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({}, None),
    ],
)
def test_usable_threads_respects_the_control_group(tmp_path: Path, files: dict[str, str], threads: int | None) -> None:
    everything = usable_threads(tmp_path)
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    assert usable_threads(tmp_path) == (threads or everything)


def test_usable_memory_respects_the_control_group(tmp_path: Path) -> None:
    assert psutil.virtual_memory().total == usable_memory(tmp_path)
    path = tmp_path / "sys/fs/cgroup/memory.max"
    path.parent.mkdir(parents=True)

    path.write_text("1073741824\n")
    assert usable_memory(tmp_path) == GIB
    path.write_text("max\n")
    assert psutil.virtual_memory().total == usable_memory(tmp_path)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Two GPUs, of which torch sees only the second; NVML counts 1,500 mJ between two readings."""
    properties = SimpleNamespace(
        name="NVIDIA H100 80GB HBM3", total_memory=int(79.1 * GIB), major=9, minor=0, uuid="second"
    )
    state = SimpleNamespace(properties=properties, millijoules=10_000, open=0, uuids=[])

    def handle(uuid: str) -> str:
        state.uuids.append(uuid)
        return uuid

    def count(_: str) -> int:
        state.millijoules += 1500
        return int(state.millijoules)

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: setattr(state, "open", state.open + 1))
    monkeypatch.setattr(pynvml, "nvmlShutdown", lambda: setattr(state, "open", state.open - 1))
    monkeypatch.setattr(pynvml, "nvmlSystemGetDriverVersion", lambda: "570.1")
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", handle)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", count)
    return state


def test_describe_hardware_includes_the_gpu_in_the_id(gpus: SimpleNamespace) -> None:
    found = describe_hardware("cuda")

    assert (
        found.gpu_model,
        found.gpu_count,
        found.gpu_compute_capability,
        found.gpu_driver,
    ) == ("NVIDIA H100 80GB HBM3", 1, "9.0", "570.1")
    assert found.name.startswith("h100-80gb-")
    assert describe_hardware("cpu").id == found.id  # a machine has one id for all devices
    gpus.properties.name = "NVIDIA H200"
    assert describe_hardware("cuda").id != found.id


@pytest.mark.parametrize("device", ["cuda:1", "cuda:x", "tpu", ""])
def test_describe_hardware_refuses_an_unknown_device(gpus: SimpleNamespace, device: str) -> None:
    with pytest.raises(ValueError, match="device"):
        describe_hardware(device)


def test_the_joules_of_a_gpu_are_the_difference_of_its_counter(gpus: SimpleNamespace) -> None:
    with EnergyMeter("cuda:0") as meter:
        pass

    assert meter.energy.joules == 1.5
    assert "NVML" in str(meter.energy.source)
    assert gpus.uuids == ["GPU-second"]  # by UUID: numbers differ between torch and NVML
    assert gpus.open == 0


def test_a_gpu_without_a_counter_has_no_joules_and_a_reason(
    gpus: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(_: str) -> int:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", unsupported)

    with EnergyMeter("cuda:0") as meter:
        pass

    assert meter.energy.joules is None
    assert "Not Supported" in str(meter.energy.reason)
    assert gpus.open == 0


def test_without_pynvml_the_reason_names_the_extra(gpus: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)

    with EnergyMeter("cuda:0") as meter:
        pass

    assert meter.energy.reason == 'no energy counter: pynvml is not installed: pip install "touchstone[suite]"'


def zone(powercap: Path, number: str, *, name: str, energy: int, top: int = 1_000_000) -> Path:
    folder = powercap / f"intel-rapl:{number}"
    folder.mkdir(parents=True)
    for file, value in (("name", name), ("energy_uj", energy), ("max_energy_range_uj", top)):
        (folder / file).write_text(f"{value}\n")
    return folder


def test_joules_are_summed_over_packages_without_their_parts(tmp_path: Path) -> None:
    first = zone(tmp_path, "0", name="package-0", energy=100_000)
    second = zone(tmp_path, "1", name="package-1", energy=0)
    core = zone(tmp_path, "0:0", name="core", energy=0)
    platform = zone(tmp_path, "2", name="psys", energy=0)

    with EnergyMeter("cpu", powercap=tmp_path) as meter:
        for folder, value in ((first, 600_000), (second, 250_000), (core, 900_000), (platform, 900_000)):
            (folder / "energy_uj").write_text(str(value))

    assert meter.energy.joules == 0.75
    assert "package-0, package-1" in str(meter.energy.source)


def test_a_counter_may_wrap_around(tmp_path: Path) -> None:
    folder = zone(tmp_path, "0", name="package-0", energy=900_000)

    with EnergyMeter("cpu", powercap=tmp_path) as meter:
        (folder / "energy_uj").write_text("100000")

    assert meter.energy.joules == 0.2


def test_a_counter_may_wrap_around_several_times(tmp_path: Path) -> None:
    folder = zone(tmp_path, "0", name="package-0", energy=0)

    with EnergyMeter("cpu", powercap=tmp_path, look_seconds=0.005) as meter:
        for value in (800_000, 600_000, 400_000):  # 0.8 J per reading, beyond the range of 1 J twice
            replacement = folder / "next"
            replacement.write_text(str(value))
            replacement.replace(folder / "energy_uj")
            time.sleep(0.25)

    assert meter.energy.joules == pytest.approx(2.4)


def test_an_unreadable_counter_is_given_as_the_reason(tmp_path: Path) -> None:
    (zone(tmp_path, "0", name="package-0", energy=0) / "energy_uj").unlink()

    with EnergyMeter("cpu", powercap=tmp_path) as meter:
        pass

    assert meter.energy.joules is None
    assert "energy_uj: No such file" in str(meter.energy.reason)


def test_a_counter_that_fails_during_the_run_does_not_end_it(tmp_path: Path) -> None:
    folder = zone(tmp_path, "0", name="package-0", energy=0)

    with EnergyMeter("cpu", powercap=tmp_path) as meter:
        (folder / "energy_uj").unlink()

    assert meter.energy.joules is None


def test_a_machine_without_counters_has_no_joules_and_a_reason(tmp_path: Path) -> None:
    with EnergyMeter("cpu", powercap=tmp_path / "none") as meter:
        pass

    assert (meter.energy.joules, meter.energy.source) == (None, None)
    assert "no RAPL package" in str(meter.energy.reason)


def test_describe_software_has_versions_flags_and_relevant_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    model = types.SimpleNamespace(config=types.SimpleNamespace(_attn_implementation="sdpa"))
    environment = {
        "OMP_NUM_THREADS": "3",
        "HF_TOKEN": "secret",
        "HOME": "/somewhere",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8\n",
    }

    found = describe_software(model, environment=environment)

    assert found.environment == {"OMP_NUM_THREADS": "3", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    assert torch.__version__ == found.packages["torch"]
    assert set(found.flags) >= {"deterministic_algorithms", "float32_matmul_precision", "threads"}
    assert found.attention == "sdpa"
    assert sys.version.startswith(found.python)
    assert "secret" not in found.model_dump_json()


def test_describe_software_has_the_deterministic_mode() -> None:
    torch.use_deterministic_algorithms(True)
    try:
        assert describe_software().flags["deterministic_algorithms"] == "True"
    finally:
        torch.use_deterministic_algorithms(False)


def test_total_energy_is_unknown_if_one_counter_is() -> None:
    first, second = (Energy(joules=joules, source="NVML", reason=None) for joules in (1.5, 2.25))
    none = Energy(joules=None, source=None, reason="no counter")

    assert total_energy([first]) == first
    assert Energy(joules=3.75, source="NVML; sum of 2", reason=None) == total_energy([first, second])
    assert total_energy([first, none]) == none
