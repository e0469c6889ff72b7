"""What helps queries that should read nothing: each remedy, and some pairs.

Command: `python -m benchmarks.sweep --sweep=sinks --data_dir=STORE`

Pairs are of remedies that act at different places: in the softmax, behind it,
or as rows among the keys. A second one in the same softmax would do the work
of the first.
"""

from configs.sweep import Sweep

_OFF_BY_ONE = "--model.sink=off_by_one"
_LEARNED = "--model.sink=learned"
_HEAD_GATE = "--model.output_gate=head"
_ELEMENT_GATE = "--model.output_gate=element"
_REGISTERS = "--model.num_registers=4"
_BOUNDARIES = "--model.boundary_sinks"

SWEEP = Sweep(
    question="Does a query need something that it may read instead of keys?",
    variants={
        "none": (),
        "off_by_one": (_OFF_BY_ONE,),
        "learned": (_LEARNED,),
        "key_value": ("--model.sink=key_value",),
        "head_gate": (_HEAD_GATE,),
        "element_gate": (_ELEMENT_GATE,),
        "registers": (_REGISTERS,),
        "boundaries": (_BOUNDARIES,),
        "off_by_one+head_gate": (_OFF_BY_ONE, _HEAD_GATE),
        "learned+element_gate": (_LEARNED, _ELEMENT_GATE),
        "learned+boundaries": (_LEARNED, _BOUNDARIES),
        "element_gate+registers": (_ELEMENT_GATE, _REGISTERS),
    },
    datasets=("alibaba", "eleme", "kuairand", "ebnerd", "completejourney"),
)
