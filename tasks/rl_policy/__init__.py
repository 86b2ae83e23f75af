"""Policies for gymnasium environments, learned by proximal policy optimisation (PPO)."""
