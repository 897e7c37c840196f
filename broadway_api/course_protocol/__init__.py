"""The protocol of Broadway's releases of 2019 to 2024, which courses and graders in the field still speak.

It is another way to write down and to hear of the same runs, jobs and workers: what is here is translation only. The
rules of the domain are where they are for everybody.
"""
