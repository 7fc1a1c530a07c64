# What differs between clusters: edit this file, or name another one in DENS_OCP_CLUSTER.
# Read by slurm/submit and slurm/evaluate on the login node, and by their jobs.

# Options of sbatch for every job.
sbatch_options=(
    # --partition=gpu
    # --account=my-project
    # --qos=normal
    # --constraint=v100-32g
    --time=24:00:00            # a run that takes longer is saved and requeued, as often as it takes
)

# Options of sbatch for a job that needs no GPU: the last step of an evaluation.
sbatch_options_cpu=("${sbatch_options[@]}")

gpus_per_node=8                # of nodes without any: the number of processes, with device=cpu
device=gpu                     # cpu: ask for no GPU, and train on the CPU
cpus_per_gpu=8                 # data workers (optim.num_workers) and one for the process itself
gigabytes_per_gpu=60           # of the node's memory

# How sbatch is asked for GPUs. Some clusters want --gres=gpu:$1, or --gres=gpu:a100:$1.
gpu_request() { echo "--gpus-per-node=$1"; }

# How many seconds before the time limit a run is told to save. A step and a checkpoint must fit.
seconds_to_save=300

# What a job does first, in the project's folder.
set_up() {
    # module load cuda/12.1
    # export NCCL_SOCKET_IFNAME=ib0
    # export WANDB_MODE=offline
    source .venv/bin/activate
}
