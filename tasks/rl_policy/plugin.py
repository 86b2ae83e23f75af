"""What policies of reinforcement learning are called and where their parts are."""

from resdomains.plugins import TaskPlugin

plugin = TaskPlugin(
    name="rl_policy",
    summary="Which action to take in an environment, learned by proximal policy optimisation (PPO)",
    task="resdomains_tasks.rl_policy.task:RLPolicy",
    data={"Gymnasium": "resdomains_tasks.rl_policy.data:Gymnasium"},
    configs="resdomains_configs.rl_policy",
    extra="rl",
)
