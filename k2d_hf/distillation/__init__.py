"""Stage 3, from validated pseudo-labels to a trained student.

The method is read in this order: `settings` and `arguments` (what there is to choose), `loss/` (the equation),
`batches/` (from chunks to tensors), `targets/` (the teacher's output and the encoder's states, stored), `models` and
`construction` (student, teacher and auxiliary), and `trainer`, which adds its loss to what it inherits: complete
`checkpoints`, `saving`, `loading` and `evaluating`. `rehearsal` tries settings before any work; `card_callback` gathers
the facts of a training.
"""
