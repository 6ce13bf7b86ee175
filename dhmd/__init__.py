"""DHMD: decoupled hierarchical multimodal distillation, and the features it eats."""
