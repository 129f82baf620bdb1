"""The job: plan, claim, generate, embed, observe, commit, aggregate."""
