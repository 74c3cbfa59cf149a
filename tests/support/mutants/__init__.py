"""Small random changes of the core, each run against the tests that concern it: do they notice it?"""
