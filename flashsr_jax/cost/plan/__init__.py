"""What a training run will cost, before it starts: `flashsr plan`.

`program` reads a step's jaxpr, `placement` says what each device holds and sends, `chips` predicts the time on devices
that are not here, `compiled` asks a compiler instead, `report` prints.
"""
