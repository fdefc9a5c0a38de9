"""Stage 3, distillation: a student with few decoder layers learns from the labels that survived."""
