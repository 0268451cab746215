"""FSDP2 on CPUs: accelerate ignores its settings there, so this tells accelerate's state that it may not."""

from pathlib import Path

from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.state import PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from accelerate.utils.launch import prepare_multi_gpu_env


def settings(config: Path) -> dict[str, str]:
    """The variables that `accelerate launch --config_file CONFIG` hands to its processes."""
    args = launch_command_parser().parse_args(["--config_file", str(config), "script"])
    env = prepare_multi_gpu_env(_validate_launch_command(args)[0])
    return {name: value for name, value in env.items() if name.startswith(("ACCELERATE_", "FSDP_"))}


def apply() -> None:
    """To be called before training: a Trainer whose accelerator shards what those variables say."""
    import hfft.pipeline
    from hfft.trainer import Trainer

    class Sharded(Trainer):
        def create_accelerator_and_postprocess(self):
            super().create_accelerator_and_postprocess()
            state = self.accelerator.state
            state.fsdp_plugin = FullyShardedDataParallelPlugin()
            state.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
            self.is_fsdp_enabled = True

    hfft.pipeline.Trainer = Sharded
