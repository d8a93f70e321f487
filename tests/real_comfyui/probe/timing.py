"""A node that times sampling with and without networks, by turns."""

import json
import statistics
import time
from pathlib import Path

import nodes


class ProbeTime:
    """Samples both models again and again, and writes the times of each round to a file."""

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        names = ("MODEL", "MODEL", "CONDITIONING", "CONDITIONING", "LATENT", "INT", "INT", "STRING")
        fields = ("plain", "model", "positive", "negative", "latent", "steps", "rounds", "file")
        return {"required": {f: (n,) for f, n in zip(fields, names, strict=True)}}

    RETURN_TYPES = ()
    FUNCTION = "run"
    OUTPUT_NODE = True

    def run(self, plain, model, positive, negative, latent, steps, rounds, file):
        def seconds(sampled):
            # The time of this process: what else runs on the machine doesn't count.
            wall, own = time.perf_counter(), time.process_time()
            nodes.common_ksampler(
                sampled, 1, steps, 2.0, "euler", "normal", positive, negative, latent
            )
            return time.perf_counter() - wall, time.process_time() - own

        seconds(plain), seconds(model)  # warm
        found = []
        for number in range(rounds):
            pair = (plain, model) if number % 2 else (model, plain)
            times = [seconds(sampled) for sampled in pair]
            found.append(times if number % 2 else times[::-1])
            Path(file).write_text(json.dumps(found), encoding="utf-8")
        return {"ui": {"ratio": [statistics.median(b[1] / a[1] for a, b in found)]}}
