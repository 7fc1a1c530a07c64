# The settings of your cluster: edit this file, or set DENS_OCP_CLUSTER to the path of another one.
# Read by slurm/submit and slurm/evaluate on the login node, and by their jobs.

# Options of sbatch for every job.
sbatch_options=(
    # --partition=gpu
    # --account=my-project
    # --qos=normal
    # --constraint=v100-32g
    --time=24:00:00            # a longer run is saved and requeued until it is complete
)

# Options of sbatch for a job that needs no GPU: the last step of an evaluation.
sbatch_options_cpu=("${sbatch_options[@]}")

gpus_per_node=8                # on nodes without GPUs (device=cpu): number of processes
device=gpu                     # cpu: request no GPU, and train on the CPU
cpus_per_gpu=8                 # for the data workers (optim.num_workers) and one for the process itself
gigabytes_per_gpu=60           # memory to request for each GPU

# The option of sbatch that requests GPUs. Some clusters need --gres=gpu:$1 or --gres=gpu:a100:$1.
gpu_request() { echo "--gpus-per-node=$1"; }

# A run is told to save this number of seconds before the time limit. It must be enough for one step
# and one checkpoint.
seconds_to_save=300

# What a job does first, in the folder of the project.
set_up() {
    # module load cuda/12.1
    # export NCCL_SOCKET_IFNAME=ib0
    # export WANDB_MODE=offline
    source .venv/bin/activate          # your Python environment
}
