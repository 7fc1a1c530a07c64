def check_dataset_paths(section, name): pass
def check_first_record(dataset, required, where): pass
class LabelCheckingCollater:
    def __init__(self, collater, required, where): self.collater = collater
    def __call__(self, data): return self.collater(data)
