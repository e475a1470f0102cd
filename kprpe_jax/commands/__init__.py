"""The command line: one file a verb, imported when it is used."""

VERBS = {  # verb -> what it does, for the list of all
    "train": "Train a network by a config.",
    "eval": "Evaluate a run, or published weights, by a config's evaluators.",
    "import": "Import faces or gait sequences as a data set.",
    "synthesize": "Render a data set of synthetic faces, walkers or digits.",
    "align": "Detect and align the faces of photos or a video.",
    "embed": "Embed the faces of photos or of a data set.",
    "fuse": "Fuse the photos of each person into one embedding.",
    "verify": "Say whether two photos show the same person.",
    "enroll": "Add people to a gallery.",
    "identify": "Say who the people in photos are.",
    "explain": "Show why photos match, patch by patch.",
    "gallery": "List, show, remove or replace the people of a gallery.",
    "export": "Write a recognizer or a fusion model as a file of its own.",
    "compile": "Compile a training step for TPUs or GPUs that need not be there.",
    "models": "List the published networks.",
    "convert": "Convert a run of an older version.",
}
