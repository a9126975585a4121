"""From a prompt to a splat file, in about twenty seconds on a CPU: ./robot holds all that the run left.

``toybox-ideal`` is an instrument that knows toy objects only; with a CUDA card, ``preset("sd21-base", ...)`` takes any
sentence.
"""

import sdi_gs

config = sdi_gs.preset("toybox-ideal", prompt="a blue robot")
trainer = sdi_gs.Trainer(config, sdi_gs.load_prior(config))
summary = sdi_gs.run(trainer, "robot")
exported = sdi_gs.export(sdi_gs.load("robot"), "robot.splat")
print(f"{summary['steps']} steps in {summary['train_seconds']:.0f} s; {exported.path}: {exported.summary}")
