"""Long runs under faults: do memory and open files stay, and is what comes out the same bit for bit?"""
