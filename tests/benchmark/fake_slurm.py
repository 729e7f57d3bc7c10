"""Slurm's commands, as far as submitit calls them: each job is a process of this machine."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

ONE_TASK = {
    'SLURM_NTASKS': '1', 'SLURM_JOB_NUM_NODES': '1', 'SLURM_JOB_NODELIST': 'here',
    'SLURM_NODEID': '0', 'SLURM_PROCID': '0', 'SLURM_LOCALID': '0',
}  # fmt: skip
NAMES = ('sbatch', 'srun', 'sacct', 'scancel', 'scontrol')


def install(folder):
    """Write the commands; they keep their jobs in `folder`."""
    for name in NAMES:
        command = folder / name
        command.write_text(
            f'#!/bin/sh\nexec {sys.executable} -S {Path(__file__).resolve()} {name} {folder} "$@"\n'
        )
        command.chmod(0o755)


def sbatch(jobs, script):
    number = str(len(list(jobs.glob('*.sh'))) + 1)
    shutil.copy(script, jobs / f'{number}.sh')
    env = {**os.environ, **ONE_TASK, 'SLURM_JOB_ID': number}
    with (jobs / f'{number}.out').open('w') as out:
        command = ['bash', jobs / f'{number}.sh']
        job = subprocess.Popen(command, env=env, start_new_session=True, stdout=out, stderr=out)
    (jobs / f'{number}.pid').write_text(str(job.pid))
    print(f'Submitted batch job {number}')


def srun(jobs, *arguments):
    words = list(arguments)
    while words[0].startswith('-'):
        words = words[1 if words[0] == '--unbuffered' else 2 :]
    os.execvp(words[0], words)


def session(jobs, number):
    """The processes of a job, its shell first."""
    shell = (jobs / f'{number}.pid').read_text()
    found = subprocess.run(['pgrep', '-s', shell], capture_output=True, text=True).stdout.split()
    return shell, [int(pid) for pid in found if pid != shell]


def sacct(jobs, *arguments):
    print('JobID|State|NodeList')
    for number in (word for word in arguments if word.isdecimal()):
        print(f'{number}|{"RUNNING" if session(jobs, number)[1] else "CANCELLED"}|here')


def scancel(jobs, number):
    shell, others = session(jobs, number)
    for pid in others:
        os.kill(pid, signal.SIGTERM)
    subprocess.Popen(['sh', '-c', f'sleep 1; pkill -KILL -s {shell}'], stdout=subprocess.DEVNULL)


if __name__ == '__main__':
    globals()[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
